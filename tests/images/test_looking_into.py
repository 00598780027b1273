"""What a file is, is read off its first bytes: names without a suffix, DICOM without a preamble."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from llava.images.dicom import HEAD, looks_like_dicom
from llava.images.loading import ImageError, load_image, looks_like_image

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")

RAMP = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (48, 1))


def without_meta(path, preamble=b""):
    """The file, its preamble replaced and its file meta information dropped."""
    dataset = pydicom.dcmread(path)
    stream = io.BytesIO()
    implicit, little_endian = dataset.original_encoding
    del dataset.file_meta
    pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little_endian)
    start = 132 if stream.getvalue()[128:132] == b"DICM" else 0
    path.write_bytes(preamble + stream.getvalue()[start:])
    return path


@pytest.mark.parametrize("preamble", [b"", b"\0" * 128 + b"DICM"])
@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian"])
@pytest.mark.parametrize("name", ["IM0001", "1.2.840.5", "image.dcm", "image.ima"])
def test_dicom_without_file_meta_information_is_read(dicom, name, syntax, preamble):
    fields = {"SpecificCharacterSet": "ISO_IR 100", "Modality": "DX"}
    plain = np.asarray(load_image(dicom(RAMP, "plain.dcm")))
    path = without_meta(
        dicom(RAMP, name, syntax=getattr(pydicom.uid, syntax), **fields), preamble=preamble
    )
    assert looks_like_image(path)
    assert np.array_equal(np.asarray(load_image(path)), plain)


def test_compressed_pixels_without_a_transfer_syntax_are_named(dicom):
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray((RAMP // 16).astype(np.uint8)).save(stream, "JPEG")
    data = encapsulate([stream.getvalue()])
    path = dicom((RAMP // 16).astype(np.uint8), syntax=pydicom.uid.JPEGBaseline8Bit, PixelData=data)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"))
    with pytest.raises(ImageError, match=r"compressed pixels and no Transfer Syntax UID"):
        load_image(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00",
        b"plain text, and a lot of it. " * 9,
        b"\x08\x00\x16\x00 \xff\xff\xff" * 20,
        b"\x00\x00\x00\x00" * 64,
        b"GIF89a" * 40,
        b"\xff\xfe" + "UTF-16".encode("utf-16-le") * 30,
    ],
)
def test_other_files_are_not_taken_for_images(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not looks_like_image(tmp_path / "file")
    assert not looks_like_dicom(content[:HEAD])


def test_pictures_without_a_suffix_are_images_and_a_dicomdir_is_not(tmp_path, dicom):
    for kind in ("JPEG", "PNG"):
        Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / kind, kind)
        assert looks_like_image(tmp_path / kind)
        assert load_image(tmp_path / kind).size == (64, 48)
    assert not looks_like_image(dicom(RAMP, "DICOMDIR"))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_head_gives_a_picture_or_a_named_error(dicom):
    random = np.random.default_rng(0)
    fields = {"WindowCenter": 2048, "WindowWidth": 4096, "SpecificCharacterSet": "ISO_IR 100"}
    with_meta = dicom(RAMP, **fields)
    contents = [with_meta.read_bytes(), without_meta(dicom(RAMP, "b.dcm", **fields)).read_bytes()]
    shown, messages = 0, []
    for round_number in range(300):
        content = bytearray(contents[round_number % 2])
        for place in random.integers(0, 700, random.integers(1, 6)):
            content[place] = random.integers(0, 256)
        with_meta.write_bytes(content)
        try:
            shown += load_image(with_meta).mode == "RGB"
        except ImageError as error:
            messages.append(str(error))
    assert 50 < shown < 250
    assert all("image.dcm" in message for message in messages)


def test_all_unreadable_images_of_an_evaluation_are_listed(tmp_path):
    from llava.eval.documents import check_images, read_documents

    entries = []
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"")
        turns = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "Clear."}]
        entries.append({"id": f"e{number}", "image": f"{number}.png", "conversations": turns})
    (tmp_path / "test.json").write_text(json.dumps(entries))
    documents, _ = read_documents(tmp_path / "test.json", tmp_path)
    with pytest.raises(ValueError, match="60 images cannot be read") as caught:
        check_images(documents)
    for number in range(60):
        assert f"{number}.png' of entry 'e{number}' is not a JPEG" in str(caught.value)


def test_all_images_that_are_links_out_of_their_folder_are_listed(tmp_path):
    from llava.eval.documents import read_documents

    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "blob", "PNG")
    entries = []
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").symlink_to(tmp_path / "blob")
        turns = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "Clear."}]
        entries.append({"id": f"e{number}", "image": f"{number}.png", "conversations": turns})
    (tmp_path / "test.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="3 images are not in their folder") as caught:
        read_documents(tmp_path / "test.json", tmp_path / "images")
    for number in range(3):
        assert f"'e{number}' is a link that leaves the image folder" in str(caught.value)
