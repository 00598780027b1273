"""Word groups that several readers share, as regular expressions on normalized text."""

SIZE = (
    r"(?:tiny|trace|small|minimal\w*|mild\w*|moderate\w*|large|massive|severe\w*|marked\w*|slight\w*"
    r"|subtle|sizeable|extensive)"
)
QUALITY = (
    r"(?:stable|unchanged|persist\w+|residual|remaining|new|old|healed|healing|known|chronic"
    r"|resolving|improving|improved|worsening|increas\w+|decreas\w+|bibasilar|biapical|patchy)"
)
"""With SIZE, the words that begin a statement: "no effusion, small edema" does not occur."""

GAP = r"(?:\s+(?!(?:and|or|with|but|without|while|no)\b)[\w']+)"
"""One more word of the same phrase."""
HEART_GAP = (
    r"(?:\s+(?!(?:and|or|with|but|without|while|no|by|borders?|obscur\w+|from"
    r"|behind|left|right)\b)[\w']+)"
)
HEART = (
    r"(?:hearts?(?: size| shadow| silhouette| contours?| diameter| outline)?"
    r"|cardi\w+(?: and mediastinal)? (?:silhouette|shadow|size|contours?|outline|diameter|borders?"
    r"|ratio|index|width)|ct ratio|ctr)"
)
ENLARGED = (
    r"(?:enlarg\w*|big|bigger|prominen\w+|dilat\w+|increased?|wid(?:e|er|ened|ening)|larger?"
    r"|globular|exceed\w*|elevated|expanded|oversized|magnified"
    r"|(?:above|over|beyond|more than|greater than|larger than)(?: the)?"
    r" (?:normal|upper|half|one half|0?\.5|50|55|60)"
    r"|(?:of|is|at|measures|about|approximately)? ?0?\.(?:5[1-9]|[6-9]\d?)"
    r"|(?:5[1-9]|[67]\d) ?(?:%|percent))"
)
