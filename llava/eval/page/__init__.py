"""The parts of the page that `llava.eval.report_page` writes.

run -> findings, segments, images -> figures, tables -> assets/ (templates, style, script)
"""
