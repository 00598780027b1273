"""How radiologists name the phantom's findings. The order counts, see `labeler.mentions`."""

from __future__ import annotations

from llava.eval.labeler.mentions import pattern
from llava.eval.labeler.words import ENLARGED, GAP, HEART, HEART_GAP

OPAQUE = r"(?:opaci(?!fying|fies)\w+|densit\w+|shadow\w*|haz(?:e|y|iness))"
BLUNTED = (
    r"(?:blunt\w*|obscur\w+|oblit\w+|effac\w+|lost|fill\w+|opacif\w+|hazy|indistinct|round\w+"
    r"|ill defined|not (?:sharp|clear|seen|visible|visuali[sz]ed|well (?:seen|defined)))"
)
ANGLE = r"(?:angles?|sulc\w+|recess\w*|gutters?)"
COSTOPHRENIC = rf"(?:(?:costo ?phrenic|cp|costodiaphragmatic)(?: {ANGLE})?|cpas?|lateral {ANGLE})"
VESSELS = (
    r"(?:(?:interstiti\w+|(?:pulmonary |lung |central |perihilar )?(?:vascul\w+|vessels?|veins?)"
    r"|bronchovascular|reticular|perihilar|pulmonary|lung)"
    r"(?: (?:markings?|structures|pattern|lines|vascul\w+|vessels?|veins|interstitium))?)"
)
CONGESTED = (
    r"(?:increase[ds]?|prominen\w+|accentuat\w+|coarse\w*|thicken\w+|indistinct\w*|haz\w+|engorge\w*"
    r"|disten\w+|cephali[sz]ed|ill defined|blur\w+|plump|redistribut\w+|fullness|full|cuff\w*)"
)
ROUND = (
    r"(?:round\w*|spherical|ovoid|oval|circular"
    r"|(?:well |sharply )?(?:circumscribed|demarcated|marginated)"
    r"|(?:well|sharply) defined|spiculated|solitary|coin(?: like| shaped)?|nodul\w+|discrete)"
)
SPOT = r"(?:opaci\w+|densit\w+|lesions?|foc(?:us|i)|shadows?|structures?|spots?|abnormalit\w+)"
LINEAR = (
    r"(?:linear|plate ?like|band ?like|disc(?:oid| like)|disk like|sub ?segmental|streak\w*"
    r"|strand\w*|oblique|curvilinear|platelike|bands? of|plates? of|laminar|horizontal band of)"
)


PATTERNS = (
    pattern(
        "",
        r"pericardial (?:effusions?|fluid)",
        r"(?:ekg|ecg|monitor\w*|telemetry|external) (?:leads?|wires?|electrodes?|lines?|devices?)",
        r"mass effect",
        r"pleural thickening",
        r"(?:bon[ey]|osseous|lytic|sclerotic|skeletal|rib) (?:lesions?|densit\w+|mass\w*|opaci\w+)",
        r"(?:soft tissue|subcutaneous|chest wall|leg|peripheral) o?edema",
        r"(?:history of|known) (?:congestive )?(?:heart|cardiac) failure",
        r"(?:breast|nipple|skin fold) (?:shadows?|densit\w+)",
        r"(?:support|assist|medical|monitoring) devices?",
        r"leads? to",
        r"in line",
    ),
    pattern("effusion,pneumothorax", r"(?:hydro|ha?emo) ?pneumo ?thora\w+"),
    pattern(
        "pneumothorax",
        r"(?:absen\w+|lack\w*|loss|devoid|without|no|missing)(?: of)?(?: the| any| normal| visible"
        r"| peripheral| distal| associated| underlying)*"
        r" (?:lung|vascular|pulmonary|broncho ?vascular) (?:markings|vessels|texture)",
        own_negation=True,
    ),
    pattern(
        "pneumothorax",
        r"(?:tension )?pneumo ?thora\w+",
        r"ptxs?",
        r"(?:visceral )?pleural (?:lines?|edges?|margins?|reflections?|stripes?|separation)",
        r"pleural (?:air|gas)",
        rf"(?:air|gas){GAP}{{0,6}} (?:pleura\w*|intrapleural)(?: space| cavity)?",
        r"intra ?pleural (?:air|gas)",
        r"(?:lung|visceral) (?:edges?|margins?|borders?)",
        rf"(?:thin|fine|white|sharp){GAP}{{0,2}} lines?",
        r"(?:hyper|radio|trans)?lucen\w+",
        r"avascular (?:area|zone|region|space|rim)",
        r"deep sulcus(?: sign)?",
    ),
    pattern(
        "effusion",
        rf"{COSTOPHRENIC}(?: {ANGLE})?{GAP}{{0,6}}? {BLUNTED}",
        own_negation=True,
    ),
    pattern(
        "effusion",
        rf"(?:blunt\w+|obscur\w+|oblit\w+|effac\w+|loss|opacif\w+|fill\w+){GAP}{{0,6}}?"
        rf" (?:{COSTOPHRENIC}|{ANGLE})(?: {ANGLE})?",
        r"blunting",
        r"(?:pleural |parapneumonic |subpulmonic )?effusions?",
        r"pleural(?: \w+)? (?:fluid|liquid|collections?)",
        r"(?:hydro|ha?emo|pyo|chylo) ?thora\w+",
        r"empyema\w*",
        r"menisc\w+(?: signs?)?",
    ),
    pattern(
        "edema",
        r"(?:fluid|volume|circulatory) over ?load\w*",
        r"kerley(?: [abc])?(?: lines?)?",
        r"(?:short |peripheral |horizontal |septal |interlobular ){1,3}(?:lines|thickening)",
        r"(?:inter ?lobular |septal ){1,2}(?:thickening|lines?|septa\w*|prominence)",
        r"congest\w+(?: (?:heart|cardiac) failure)?",
        r"(?:heart|cardiac|ventricular) (?:failure|decompensation)|chf|decompensat\w+",
        r"(?:pulmonary |interstitial |alveolar |air ?space |perihilar |lung ){0,3}o?edema\w*",
        r"cephali[sz]ation|cephalad \w+|upper (?:lobe|zone)(?: \w+)? (?:diversion|redistribution)",
        r"(?:bat|angel)s? ?wings?(?: \w+)?|butterfly(?: \w+)?",
        r"peribronchial cuffing",
        r"interstitial (?:prominence|thickening|opaci\w+|haz\w+|fluid|infiltrat\w+"
        r"|abnormalit\w+|changes?)",
        r"reticular (?:prominence|thickening|opaci\w+|haz\w+)",
        rf"vascular {CONGESTED}",
        rf"{CONGESTED}(?: of| the| pulmonary| central| bilateral| in){{0,4}} {VESSELS}",
        rf"{VESSELS}{GAP}{{0,5}}? {CONGESTED}",
        rf"(?<!left )(?<!right )(?:peri|para) ?hilar{GAP}{{0,3}}? (?:{OPAQUE}|fullness|infiltrat\w+"
        rf"|ground glass|cloud\w+|blur\w+|consolidat\w+)(?: {OPAQUE})?",
        rf"(?:{OPAQUE}|ground glass(?: \w+)?){GAP}{{0,7}}?"
        r" (?<!left )(?<!right )(?:(?:peri|para) ?hilar|hila|hilar|hilum)(?: \w+)?",
    ),
    pattern(
        "pacemaker",
        r"pace ?makers?(?: \w+)?? (?:leads?|wires?|generators?|device)",
        r"pace ?makers?|pacers?|pacing(?: (?:device|leads?|wires?|system|electrodes?))?",
        r"(?:aicd|icd|crt|crt d|crt p|cied|ppm)s?",
        r"defibrillators?|cardioverter\w*",
        r"(?:pulse )?generators?(?: (?:pack|box|device))?",
        rf"(?:cardiac|implant\w+|electronic|rhythm|electrical|chest wall|pectoral){GAP}{{0,3}}?"
        r" (?:devices?|hardware)",
        r"battery(?: pack)?",
        r"(?:loop recorder|stimulator)s?",
        r"(?:leads?|electrodes?)",
    ),
    pattern(
        "tube_or_line",
        r"venous access devices?|access devices?",
        r"(?:tubes?|tubing|drains?|catheters?|cannula\w*)",
        r"(?:ett|ngt|ogt|dht|picc|cvc|cvl|iabp)s?(?: lines?| catheters?)?",
        r"(?:port ?a ?|porta ?|perma?|vas ?)caths?|(?:chest |infusion |medi ?)?ports?",
        r"swan ganz|dob ?b?hoff|hickman|broviac|pigtail|tracheostomy|balloon pump",
        r"(?:re)?intubat\w+",
        r"lines?",
    ),
    pattern(
        "atelectasis",
        rf"{LINEAR}(?: {LINEAR})?{GAP}{{0,2}}? (?:{SPOT}|haz\w+|bands?|streaks?|collapse"
        r"|atelecta\w+|markings?|strands?|changes?|lines?|plates?|consolidat\w+)",
        rf"(?:{SPOT}){GAP}{{0,2}} (?:linear|plate ?like|band ?like|discoid|sub ?segmental)",
        r"atelecta\w+",
        r"volume loss|(?:loss|reduction|decrease) (?:of|in)(?: \w+)? volume|reduced volume",
        r"lobar collapse|(?:lobe|base|basal|basilar|segment\w*|lobar) collapse|hypoventilat\w+",
        r"collaps\w+ (?:of|in|at) (?:the )?(?:\w+ ){0,3}(?:lobes?|base|bases|segments?|zones?)",
        r"streaks?|bands?|plates?",
    ),
    pattern("atelectasis", r"collapse"),
    pattern("atelectasis", r"collaps\w+", collapse=True),
    pattern(
        "nodule",
        rf"{ROUND}{GAP}{{0,4}}? {SPOT}",
        rf"{SPOT}{GAP}{{0,4}}? (?:round\w*|spherical|well (?:circumscribed|defined)|coin like)",
        r"(?:micro)?nodul\w+(?: mass\w*)?",
        r"mass(?:es)?(?: like \w+)?",
        r"lesions?|granulomas?\b(?!t)|neoplas\w+|tumou?rs?|metasta\w+|malignan\w+|spots?",
        r"hamartoma|carcinoma",
    ),
    pattern(
        "cardiomegaly",
        r"cardio ?megal\w+",
        rf"{HEART}:?{HEART_GAP}{{0,8}}? {ENLARGED}",
        rf"{HEART}{HEART_GAP}{{0,5}}? and (?:remains?|is|appears?){HEART_GAP}{{0,2}}? {ENLARGED}",
        r"(?:enlarg\w+|prominen\w+|dilat\w+|increased?|widen\w+|large|big|globular|oversized)"
        r"(?: of| the| in| a| overall| transverse| size| diameter| globular){0,4}"
        rf" {HEART}",
        rf"cardi\w+ {ENLARGED}",
        r"(?:(?:bi)?ventricular|atrial|chamber) enlargement",
        r"enlarged(?: \w+)? (?:ventricle|atrium)",
        rf"{HEART}{HEART_GAP}{{0,5}}? (?:more|greater) than half",
    ),
    pattern("", r"(?:cardi\w+|heart|mediastinal|hilar|vascular|bowel) (?:shadows?|densit\w+)"),
    pattern("effusion", r"(?:layering |free |basal )?fluid(?: collections?| levels?)?"),
    pattern("pacemaker", r"devices?(?!:)"),
    pattern(
        "consolidation",
        r"consolidat\w+(?: opaci\w+| changes?)?",
        r"(?:broncho ?)?pneumoni[ac]s?(?: \w*infiltrat\w+)?|pneumonitis",
        r"air bronchograms?",
        r"infect(?:ion|ious)(?: \w+)?|aspiration",
    ),
    pattern(
        "consolidation",
        r"infiltrat\w+",
        rf"(?:air ?space|alveolar|parenchymal|lobar|lung) (?:{OPAQUE}|disease|process\w*"
        r"|infiltrat\w+|filling|change\w*)",
        r"ground glass(?: \w+)?",
        rf"{OPAQUE}(?: {OPAQUE})*",
        r"patch(?:es)?|white ?out|cloud\w+",
        vague=True,
    ),
)
