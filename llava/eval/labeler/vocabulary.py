"""How radiologists name the 14 CheXpert findings, and what else makes a report abnormal.

The order of the patterns counts, see `mentions`. OTHER is an abnormality outside the 14 findings
(scoliosis, a calcified granuloma), which only rules out "No Finding". NORMAL is a statement of
normality: a text with neither this nor a finding has no label at all.
"""

from __future__ import annotations

from llava.eval.labeler.mentions import pattern
from llava.eval.labeler.words import ENLARGED, GAP, HEART, HEART_GAP

OTHER = "Other Abnormality"
NORMAL = "Normality"

OPAQUE = r"(?:opaci(?!fying|fies)\w+|densit\w+|shadow(?:s|ing)?|haz(?:e|y|iness))"
FINE = (
    r"(?:normal\w*|unremarkable|within(?: the)? (?:normal )?limits?|midline|intact|wnl|unenlarged"
    r"|not (?:\w+ )?(?:enlarged|remarkable|widened)|clear|sharp|negative"
    r"|(?:upper|top)(?: limits?| range)?(?: of)?(?: the)? normal)"
)
AIR = r"(?:air|gas)"
VESSELS = r"(?:vascul\w+|vascular markings|vessels|interstiti\w+ and vascul\w+)"
CONGESTED = (
    r"(?:prominen\w+|engorge\w*|congest\w+|indistinct\w*|increased?|disten\w+|full(?:ness)?"
    r"|ill defined|accentuat\w+|plump\w*|cephali[sz]\w+|redistribut\w+)"
)
TO_A_VESSEL = (
    r"(?:svc|superior vena cava|vena cava|cavo ?atrial|(?:right )?atri\w+|ivc|brachiocephalic"
    r"|innominate|subclavian|carina|stomach|gastric)"
)

NO_FINDING_AT_ALL = pattern(
    "",
    r"mass effect",
    r"leads? to",
    r"in line",
    r"body mass",
    r"(?:median|paratracheal|axillary|mid ?clavicular|mid clavicular) lines?",
    r"(?:left to right|right to left|portosystemic) shunt\w*",
    r"nipple (?:shadows?|densit\w+)",
    r"(?:fractured?|broken)(?: \w+){0,3}? (?:wires?|leads?|catheters?|sternotomy|hardware)",
    r"(?:wires?|leads?|catheters?|sternotomy|hardware)(?: \w+)? fractur\w+",
    r"history of (?:\w+ ){0,2}?(?:fracture|pneumonia|pneumothorax|chf|heart failure|cancer"
    r"|carcinoma|tuberculosis|edema|effusion)",
)
DEVICES = (
    pattern(
        "Support Devices",
        r"pace ?makers?|pacers?|pacing|aicds?|icds?|defibrillators?|cardioverter\w*",
        r"(?:pulse |battery )?generators?|(?:loop recorder|\w*stimulator)s?|l?vads?",
        r"(?:ett|ngt|ogt|dht|picc?|cvc|cvl|iabp)s?(?: lines?| catheters?)?|tips (?:noted|shunt"
        r"|stent)",
        r"catheters?|cannula\w*|(?:port ?a ?|porta ?|perma?|vas ?|medi ?)(?:caths?|ports?)",
        r"(?:chest |infusion |central venous |subclavian |jugular )?ports?|infusaports?",
        r"(?:central|picc?|venous|subclavian|jugular|ij|arterial|dialysis|vascular)(?: venous)?"
        r"(?: access)? (?:lines?|access devices?)",
        r"tubes?|tubing|(?<!lateral )drains?|shunts?|coils?|vena cava(?:l)? filters?|ivc filters?",
        rf"(?:distal )?tips?(?: \w+){{0,7}} {TO_A_VESSEL}",
        r"ivc (?:identified|noted)|with(?: its| the)?(?: distal)? tip",
        r"swan ganz|dob ?b?hoff|hickman|broviac|pigtail|tracheostom\w+|balloon pumps?",
        r"(?:re)?intubat(?:ed|ion)",
        r"(?:sternal|sternotomy|cerclage) (?:wires?|sutures?)|cerclage",
        r"(?:\w+ )?leads?|(?:monitor\w*|telemetry|ekg|ecg) (?:wires?|electrodes?|devices?|lines?)",
        r"(?:\w+ )?clips?|staples|(?:cabg|bypass|graft) markers?",
        r"(?:prosthe\w+|mechanical|artificial|replaced|replacement)(?: \w+){0,2} valves?"
        r"|valve (?:prosthes\w+|replacements?|ring)|bioprosthe\w+|annuloplasty"
        r"|valvular prosthes\w+",
        r"(?:humer\w+|shoulder|joint|hip)(?: \w+)? (?:prosthes\w+|replacement|arthroplasty"
        r"|anchors?)"
        r"|prosthetic (?:\w+ )?shoulder|bone anchors?|internal fixation|arthroplast\w+",
        r"stents?|stent grafts?",
        r"hardware|(?:harrington|fixation|spinal|metallic) (?:rods?|screws?|plates?|wires?)",
        r"(?:support|assist|implant\w+|electronic|medical|closure|occlu\w+|cardiac|access"
        r"|retention|monitor\w+) devices?",
    ),
)
PLEURA = (
    pattern("Pleural Effusion,Pneumothorax", r"(?:hydro|ha?emo|pyo) ?pneumo ?thora\w+"),
    pattern(
        "Pneumothorax",
        r"(?:tension )?pneumo ?thora\w+",
        r"ptxs?|pnx",
        rf"(?:intra ?)?pleural {AIR}(?: collections?)?",
        rf"{AIR}{GAP}{{0,9}}? pleural (?:space|cavity)",
    ),
    pattern(
        "Pleural Effusion",
        r"(?:costo ?phrenic|cp)(?: (?:angles?|sulc\w+|recess\w*))?(?: \w+){0,4}? "
        r"(?:sharp|clear|free|unremarkable|normal|preserved)(?:ly \w+)?",
        r"pleural spaces?(?: \w+){0,3}? (?:clear|normal|unremarkable)",
        absent=True,
    ),
    pattern(
        "Pleural Effusion",
        r"(?:pleural |parapneumonic |subpulmonic )?effusions?|pleural fusions?",
        r"pleural(?: \w+)? (?:fluid|liquid|collections?)",
        r"(?:hydro|ha?emo|pyo|chylo) ?thora\w+|empyema\w*",
    ),
    pattern(
        "Pleural Effusion",
        rf"blunt\w*{GAP}{{0,6}}? (?:angles?|sulc\w+|recess\w*)",
        rf"(?:angles?|sulc\w+|recess\w*){GAP}{{0,4}}? blunt\w*",
        r"blunt(?:ing|ed)",
        hedged=True,
    ),
    pattern(
        "Pleural Other",
        r"pleural(?: \w+){0,2}? (?:thicken\w+|plaques?|scar\w*|calcif\w+|reaction|disease|mass\w*"
        r"|abnormalit\w+|nodul\w+|fibrosis|changes?|based \w+)",
        r"thicken\w+ of the pleura|fibrothorax|(?:apical|pleural) (?:cap|caps|capping|thickening)",
    ),
)
LUNGS = (
    pattern(
        "Edema",
        r"(?:pulmonary |interstitial |alveolar |air ?space |perihilar |lung |cardiogenic )*"
        r"o?edema\w*",
        r"(?:pulmonary |venous |vascular |central |perihilar |cardiac |passive |chronic )*"
        r"congest\w+(?: (?:heart|cardiac) failure)?",
        r"(?:heart|cardiac|ventricular) (?:failure|decompensation)|chf",
        r"(?:fluid|volume|circulatory) over ?load\w*",
        rf"(?:pulmonary |lung |central |perihilar )*{VESSELS}{GAP}{{0,4}}? {CONGESTED}",
        rf"{CONGESTED}(?: of| the| in| bilateral| central| pulmonary| lung| perihilar){{0,4}}"
        rf" {VESSELS}",
        r"kerley(?: [abc])?(?: lines?)?|septal lines|engorged",
    ),
    pattern(
        "Atelectasis",
        r"atelecta\w+",
        r"(?:lobar|lobe|segmental|basilar|lung) collapse|collapse of|collapsed? (?:lung|lobe)",
    ),
    pattern("Consolidation", r"consolidat\w+"),
    pattern(
        "Pneumonia",
        r"(?:broncho ?)?pneumoni[ac]s?|pneumonitis|infections?|infectious(?: process\w*)?",
    ),
)
FRACTURE = pattern(
    "Fracture",
    r"(?:compression |rib |clavic\w+ |burst |wedge )*fractur\w*(?: deformit\w+)?",
    r"fx",
)
HEART_ENLARGED = (
    pattern(
        "Cardiomegaly",
        r"(?:borderline )?cardio ?megal\w+",
        rf"{HEART}:?{HEART_GAP}{{0,6}}? (?<!not ){ENLARGED}",
        r"(?:enlarg\w+|prominen\w+|dilat\w+|increased?|large|big|globular|oversized)"
        r"(?: of| the| in| a| overall| transverse| size| diameter| globular){0,4}"
        rf" {HEART}",
        r"cardi\w+ (?:enlarge\w*|prominence)",
        r"(?:(?:bi)?ventricular|chamber) (?:enlargement|hypertrophy)",
    ),
    pattern(
        "Cardiomegaly",
        rf"{HEART}{HEART_GAP}{{0,6}}? borderline",
        rf"{HEART}{HEART_GAP}{{0,6}}? normal(?: in size| size)? or (?:\w+ )?enlarged",
        rf"borderline(?: \w+)? {HEART}",
        hedged=True,
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"(?:cardio ?)?mediastin\w+{GAP}{{0,6}}? (?:enlarg\w+|widen\w*|wide|prominen\w+)",
        r"(?:enlarg\w+|widen\w*|wide|prominen\w+)(?: \w+){0,3}? (?:cardio ?)?mediastin\w+",
    ),
)
HEART_NORMAL = (
    pattern(
        "Cardiomegaly,Enlarged Cardiomediastinum",
        rf"{HEART}(?:,? (?!but|with)\w+){{0,3}}?,? mediastin\w+(?:,? (?!but"
        rf"|with)\w+){{0,7}}? {FINE}",
        rf"(?:normal|unremarkable)(?: \w+)? (?:{HEART}|cardiac)(?: and|,)(?: \w+)? mediastin\w+",
        rf"(?:cardiac|heart) and mediastin\w+{GAP}{{0,6}}? {FINE}",
        absent=True,
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"cardio ?mediastin\w+(?: (?!but|with)[\w']+){{0,8}}? {FINE}",
        r"(?:normal|unremarkable)(?: \w+)? cardio ?mediastin\w+",
        absent=True,
    ),
    pattern(
        "Cardiomegaly",
        rf"{HEART}:?(?:,? (?!but|with)[\w']+){{0,12}}? {FINE}",
        rf"(?:normal|unremarkable)(?: \w+){{0,3}}? {HEART}",
        rf"{FINE}(?: \w+){{0,2}}? {HEART}",
        absent=True,
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"mediastin\w+{GAP}{{0,8}}? {FINE}",
        r"(?:normal|unremarkable)(?: \w+)? mediastin\w+",
        absent=True,
    ),
)
OTHER_ABNORMAL = (
    pattern(
        OTHER,
        r"pericardial (?:effusions?|fluid)",
        rf"pneumo ?peritone\w+|free (?:intra ?peritoneal |subdiaphragmatic )?{AIR}",
        rf"pneumo ?mediastin\w+|subcutaneous (?:emphysema|{AIR})",
        r"(?:soft tissue|subcutaneous|chest wall) o?edema",
    ),
    pattern(
        OTHER,
        r"\w*scolio\w*|kypho\w*|degenerat\w+|spondyl\w+|osteophyt\w*|\w*arthr\w+|osteopen\w*"
        r"|osteopor\w*|osteodystroph\w+|demineraliz\w+|spurr?ing|spurs?|dislocat\w+|curvature|dish"
        r"|endplate|\w*syndesmophyt\w*"
        r"|(?:spin\w+|vertebra\w*|thoracic|lumbar|cervical) fusion|fusion of|vertebroplasty",
        r"tortuo\w+|ectati\w+|ectasia|athero\w*|arterioscler\w*|aneurysm\w*|uncoil\w+|unfold\w+",
        r"calcif\w+|granulom\w*|histoplasm\w+|sarcoid\w*|tubercul\w+",
        r"emphysem\w*|hyper ?(?:inflat|expan|lucen|aerat|disten)\w*|copd|obstructive|asthma",
        r"flatten\w+|bulla\w*|bleb\w*|lucen\w+",
        r"scar\w*|fibro\w+|bronchiect\w*|cicatri\w*|peribronch\w+|cuffing|reticul\w+|crowding",
        r"hernia\w*|eventration|elevat\w+",
        r"(?:low|decreased|small|reduced|diminished|shallow) (?:lung |inspiratory )*"
        r"(?:volumes?|inspiration)",
        rf"volumes?{GAP}{{0,4}}? (?:low(?! normal)|decreased|small|reduced|diminished|low side)",
        r"hypo ?(?:inflat|ventil|aerat|expan)\w*|volume loss|loss of volume",
        r"adenopath\w*|lymphadeno\w+|goiter|thyromegaly|lipoma",
        r"deform\w+|deviat\w+|(?:re)?shift\w*|displac\w+",
        r"mastectom\w*|resect\w*|lobectom\w*|pneumonectom\w*|(?:breast )?(?:implants?|prosthes\w+)",
        r"sternotom\w+|foreign bod\w+|bullet\w*|shrapnel|post ?(?:surgical"
        r"|operative)(?: \w+)? changes?|sutures?",
        r"blast\w+|lytic|sclero\w+|cyst\w*|contusion|ha?emorrhage|aspirat\w+",
    ),
)
LUNGS_IN_GENERAL = (
    pattern(
        "Lung Lesion",
        rf"nodul\w+(?: {OPAQUE})?",
        r"mass(?:es)?(?: like \w+)?",
        r"lesions?|neoplas\w+|tumou?rs?|metasta\w+|malignan\w+|carcinoma\w*|cavit\w+|cancer",
    ),
    pattern(
        "Lung Opacity",
        r"(?:air ?space|alveolar|parenchymal|interstitial)(?: \w+)?? (?:disease|process\w*"
        rf"|infiltrat\w+|filling|change\w*|{OPAQUE}|abnormalit\w+|prominence|thickening|markings)",
        r"infiltrat\w+",
        rf"ground glass(?: {OPAQUE})?",
        rf"{OPAQUE}(?: {OPAQUE})*",
        r"airspace",
    ),
    pattern(
        "Lung Opacity",
        r"(?:lungs?(?: fields?| bases)?|lung zones):?(?: (?!but|with)[\w']+){0,6}? "
        r"(?:clear|normal\w*|unremarkable)",
        r"clear(?: \w+)? lungs?",
        absent=True,
    ),
)
IN_GENERAL = (
    pattern(
        OTHER,
        r"prominen\w+|enlarg\w+|thicken\w+|dilat\w+|widen\w+|increased|coars\w+|abnormal",
    ),
    pattern(
        NORMAL,
        r"normal\w*|unremarkable|intact|clear|negative|no (?:active|acute)|disease|abnormalit\w+",
        absent=True,
    ),
)

PATTERNS = (
    NO_FINDING_AT_ALL,
    *DEVICES,
    FRACTURE,
    OTHER_ABNORMAL[0],
    *PLEURA,
    *LUNGS,
    *HEART_ENLARGED,
    OTHER_ABNORMAL[1],
    *HEART_NORMAL,
    *LUNGS_IN_GENERAL,
    *IN_GENERAL,
)
