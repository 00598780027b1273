"""How radiologists name the 14 CheXpert findings, and what else makes a report abnormal.

The vocabulary of `labeler`; the order counts, see `report_language`. OTHER are abnormalities that
are none of the 14 findings (scoliosis, a calcified granuloma): they only rule out "No Finding".
NORMAL are statements of normality: without one, and without any finding, a text says nothing.
"""

from __future__ import annotations

from llava.eval.report_language import ENLARGED, GAP, HEART, HEART_GAP, pattern

OTHER = "Other Abnormality"
NORMAL = "Normality"

OPAQUE = r"(?:opaci(?!fying|fies)\w+|densit\w+|shadow(?:s|ing)?|haz(?:e|y|iness))"
FINE = (
    r"(?:normal\w*|unremarkable|within(?: the)? normal(?: limits?)?|within limits|midline|intact"
    r"|wnl"
    r"|not (?:enlarged|remarkable)|clear|stable|unchanged|sharp|negative|nonenlarged"
    r"|upper limits? of normal|upper normal|top normal)"
)
LOBE = r"(?:lobes?|bases?|basal|bibasilar|basilar|segment\w*|lung)"

PATTERNS = (
    # Words that look like a finding and are none.
    pattern(
        "",
        r"(?:ekg|ecg|monitor\w*|telemetry) (?:leads?|wires?|electrodes?|lines?|devices?)",
        r"mass effect",
        r"leads? to",
        r"in line",
        r"body mass",
        r"lungs? volumes? (?:is|are) (?:normal|adequate)",
        r"(?:cardiac|heart|mediastinal|hilar|vascular|bowel|cardiomediastinal) (?:shadows?"
        r"|densit\w+)"
        r" (?:is|are) (?:normal|unremarkable)",
        r"fracture of (?:the )?(?:wire|lead)",
        r"(?:median|paratracheal|axillary|midclavicular|mid clavicular) lines?",
        r"soft tissue densit\w+",
    ),
    pattern(
        OTHER,
        r"pericardial (?:effusions?|fluid)",
        r"pneumo ?peritone\w+|free (?:intra ?peritoneal |subdiaphragmatic )?(?:air|gas)",
        r"pneumo ?mediastin\w+|subcutaneous (?:emphysema|air|gas)",
        r"(?:soft tissue|subcutaneous|chest wall) o?edema",
    ),
    # Support devices.
    pattern(
        "Support Devices",
        r"pace ?makers?|pacers?|pacing|aicds?|icds?|defibrillators?|cardioverter\w*",
        r"(?:pulse |battery )?generators?",
        r"(?:ett|ngt|ogt|dht|picc|cvc|cvl|iabp)s?(?: lines?| catheters?)?",
        r"catheters?|cannula\w*|(?:port ?a ?|porta ?|perma?|vas ?|medi ?)(?:caths?|ports?)"
        r"|infusaports?",
        r"(?:chest |infusion |central venous |subclavian |jugular )?ports?",
        r"(?:endotracheal|nasogastric|orogastric|enteric|feeding|gastric|chest|tracheostomy"
        r"|drainage"
        r"|thoracostomy|ng|et|og|gastrostomy|dobhoff|pleural|jejunostomy|peg)"
        r"(?: (?:drainage|feeding))? (?:tubes?|tubing|drains?|catheters?)",
        r"(?:central|picc|venous|subclavian|jugular|ij|arterial|dialysis"
        r"|vascular)(?: venous)?(?: access)?"
        r" lines?",
        r"tubes?|(?<!lateral )drains?",
        r"swan ganz|dob ?b?hoff|hickman|broviac|pigtail|tracheostom\w+|balloon pumps?",
        r"(?:re)?intubat(?:ed|ion)",
        r"(?:sternal|sternotomy|cerclage|median sternotomy) (?:wires?|sutures?)|sternotom\w+",
        r"(?:cardiac |epicardial |pacing |pacemaker |transvenous |icd )leads?|(?:dual"
        r"|single) leads?",
        r"(?:surgical|vascular|metallic|cholecystectomy|bypass|hemostatic|cabg|mediastinal) clips?"
        r"|clips",
        r"(?:surgical|skin) (?:staples?|sutures?|material|hardware|devices?|instrument\w*)|staples"
        r"|suture (?:lines?|material)|sutures?",
        r"(?:prosthe\w+|mechanical|bioprosthe\w+|artificial|replaced)(?: \w+){0,2} valves?"
        r"|valve (?:prosthe\w+|replacements?)|prosthe\w+(?: heart)? valves?|annuloplasty"
        r"|valvular prosthes\w+",
        r"stents?|stent grafts?",
        r"(?:loop recorder|stimulator)s?|vad\b|lvad",
        r"(?:orthopedic|spinal|fixation|fusion|surgical|metallic) (?:hardware|rods?|screws?"
        r"|plates?|wires?)"
        r"|hardware|harrington rods?",
        r"(?:support|assist|implant\w+|electronic|medical) devices?",
    ),
    # Bones.
    pattern(
        "Fracture",
        r"(?:compression |rib |clavic\w+ |burst |wedge )*fractur\w*(?: deformit\w+)?",
        r"fx\b",
    ),
    # Pleura.
    pattern("Pleural Effusion,Pneumothorax", r"(?:hydro|ha?emo|pyo) ?pneumo ?thora\w+"),
    pattern("Pneumothorax", r"(?:tension )?pneumo ?thora\w+", r"ptxs?|pnx"),
    pattern(
        "Pleural Effusion",
        r"(?:costo ?phrenic|cp) (?:angles?|sulc\w+|recess\w*)(?: \w+){0,4}? "
        r"(?:sharp|clear|free|unremarkable|normal|preserved)(?:ly \w+)?",
        absent=True,
    ),
    pattern(
        "Pleural Effusion",
        r"(?:pleural |parapneumonic |subpulmonic )?effusions?",
        r"pleural(?: \w+)? (?:fluid|liquid|collections?)",
        r"(?:hydro|ha?emo|pyo|chylo) ?thora\w+",
        r"empyema\w*",
    ),
    pattern(
        "Pleural Effusion",
        rf"blunt\w*{GAP}{{0,6}}? (?:angles?|sulc\w+|recess\w*)",
        rf"(?:angles?|sulc\w+|recess\w*){GAP}{{0,4}}? blunt\w*",
        r"blunting",
        hedged=True,
    ),
    pattern(
        "Pleural Other",
        r"pleural(?: \w+){0,2}? (?:thicken\w+|plaques?|scar\w*|calcif\w+|reaction|disease"
        r"|mass\w*"
        r"|abnormalit\w+|nodul\w+|fibrosis|changes?|based \w+)",
        r"thicken\w+ of the pleura|fibrothorax|(?:apical|pleural) (?:cap|caps|capping|thickening)",
    ),
    # Lungs.
    pattern(
        "Edema",
        r"(?:pulmonary |interstitial |alveolar |air ?space |perihilar |lung "
        r"|cardiogenic ){0,3}o?edema\w*",
        r"(?:pulmonary |venous |vascular |central |perihilar |interstitial |cardiac |passive "
        r"|chronic )*"
        r"congest\w+(?: (?:heart|cardiac) failure)?",
        r"(?:heart|cardiac|ventricular) (?:failure|decompensation)|chf",
        r"(?:fluid|volume|circulatory) over ?load\w*",
        r"cephali[sz]ation|(?:vascular|cephalad) (?:redistribution|diversion|engorgement)",
        r"kerley(?: [abc])?(?: lines?)?|septal lines",
        r"engorge\w*",
    ),
    pattern(
        "Atelectasis",
        r"atelecta\w+",
        r"(?:lobar|lobe|segmental|basilar|lung) collapse|collapse of",
        r"collapsed? (?:lung|lobe)",
    ),
    pattern(
        "Consolidation",
        r"consolidat\w+",
    ),
    pattern(
        "Pneumonia",
        r"(?:broncho ?)?pneumoni[ac]s?|pneumonitis|infect(?:ion|ious)(?: \w+)?",
    ),
    # Heart and mediastinum.
    pattern(
        "Cardiomegaly",
        r"cardio ?megal\w+",
        rf"{HEART}:?{HEART_GAP}{{0,6}}? (?<!not ){ENLARGED}",
        r"(?:enlarg\w+|prominen\w+|dilat\w+|increased?|large|big|globular|oversized)"
        r"(?: of| the| in| a| overall| transverse| size| diameter| globular){0,4}"
        rf" {HEART}",
        r"cardi\w+ (?:enlarge\w*|prominence)",
        r"(?:(?:bi)?ventricular|chamber) (?:enlargement|hypertrophy)",
    ),
    pattern(
        "Cardiomegaly",
        rf"{HEART}{HEART_GAP}{{0,6}}? (?:borderline|upper limits?(?: of)? normal|top normal)",
        rf"borderline(?: \w+)? {HEART}",
        hedged=True,
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"(?:cardio ?)?mediastin\w+{GAP}{{0,6}}? (?:enlarg\w+|widen\w*|wide|prominen\w+)",
        r"(?:enlarg\w+|widen\w*|wide|prominen\w+)(?: \w+){0,3}? (?:cardio ?)?mediastin\w+",
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"cardio ?mediastin\w+{GAP}{{0,8}}? {FINE}",
        r"(?:normal|unremarkable|stable)(?: \w+)? cardio ?mediastin\w+",
        absent=True,
    ),
    pattern(
        "Cardiomegaly",
        rf"{HEART}(?: (?!but|with)[\w']+){{0,12}}? {FINE}",
        rf"(?:normal|unremarkable|stable)(?: \w+){{0,2}}? {HEART}",
        rf"{HEART}",
        absent=True,
    ),
    pattern(
        "Enlarged Cardiomediastinum",
        rf"mediastin\w+{GAP}{{0,8}}? {FINE}",
        r"(?:normal|unremarkable|stable)(?: \w+)? mediastin\w+",
        absent=True,
    ),
    # Lungs, in general words.
    pattern(
        "Lung Lesion",
        rf"nodul\w+(?: {OPAQUE})?",
        r"mass(?:es)?(?: like \w+)?",
        r"lesions?|neoplas\w+|tumou?rs?|metasta\w+|malignan\w+|carcinoma\w*|cavit\w+|cancer",
    ),
    pattern(
        "Lung Opacity",
        r"(?:air ?space|alveolar|parenchymal|interstitial)(?: \w+)?? (?:disease|process\w*"
        r"|infiltrat\w+"
        rf"|filling|change\w*|{OPAQUE}|abnormalit\w+|prominence|thickening|markings)",
        r"infiltrat\w+",
        rf"ground glass(?: {OPAQUE})?",
        rf"{OPAQUE}(?: {OPAQUE})*",
        r"airspace",
    ),
    pattern(
        "Lung Opacity",
        r"(?:lungs?(?: fields?| bases)?|lung zones)(?: (?!but|with)[\w']+){0,6}? (?:clear"
        r"|normal\w*|unremarkable)",
        r"clear(?: \w+)? lungs?",
        absent=True,
    ),
    pattern(
        OTHER,
        r"scolio\w*|kypho\w*|degenerat\w+|spondyl\w+|osteophyt\w*|arthr\w+|osteopen\w*|osteopor\w*"
        r"|demineraliz\w+|dextro\w+|levo\w+|spurr?ing|dislocat\w+|separation|disc space|endplate",
        r"tortuo\w+|ectati\w+|ectasia|athero\w*|arterioscler\w*|aneurysm\w*|uncoil\w+|unfold\w+",
        r"calcif\w+|granulom\w*|histoplasm\w+|sarcoid\w*|tubercul\w+",
        r"emphysem\w*|hyper ?inflat\w*|hyper ?expan\w*|hyper ?lucen\w*|hyper ?aerat\w*|copd"
        r"|obstructive|asthma",
        r"flatten\w+|bulla\w*|bleb\w*|lucen\w+",
        r"scar\w*|fibro\w+|bronchiect\w*|cicatri\w*|bronchi\w+ thick\w+|peribronch\w+|cuffing"
        r"|reticul\w+",
        r"hernia\w*|eventration|elevat\w+",
        r"(?:low|decreased|small|reduced|diminished) (?:lung |inspiratory )?volumes?"
        r"|hypo ?inflat\w*|hypo ?ventil\w*"
        r"|hypo ?aerat\w*|volume loss|hypo ?expan\w*",
        r"adenopath\w*|lymphadeno\w+|goiter|thyromegaly",
        r"deform\w+|deviat\w+|(?:re)?shift\w*|displac\w+",
        r"mastectom\w*|resect\w*|lobectom\w*|pneumonectom\w*|foreign bod\w+|bullet\w*|shrapnel"
        r"|implants?",
        r"prominen\w+|enlarg\w+|thicken\w+|dilat\w+|widen\w+|increased|coars\w+|abnormal",
        r"blast\w+|lytic|sclero\w+|cyst\w*|contusion|hemorrhage|aspirat\w+",
    ),
    pattern(
        NORMAL,
        r"normal\w*|unremarkable|intact|clear|negative|no (?:active|acute)|disease|abnormalit\w+",
        absent=True,
    ),
)
