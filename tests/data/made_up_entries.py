"""Made-up entries of a conversations file, for the tests in this folder."""

import json


def entry(question="<image>\nDescribe.", answer="Clear lungs.", image="a.png", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "study-1", "image": image, "conversations": turns, **more}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
