"""The study: what the design choices are worth, measured on the hard phantom corpus.

    bash bench/study.sh -> `run` (one arm and seed: train, decode, score) -> `records` -> `report`

`arms` says what is compared, `scoring` how reports are judged, `intervals` how sure it is.
"""
