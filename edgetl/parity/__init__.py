"""Compare an export with the trained network, or with another export, on real photos.

check_model.py   the entry point, ``check``
check_photos.py  the photos, decoded once
browser.py       a page in a headless browser
runtimes/        every way to run the exported model, stage by stage (stages.py)
comparison/      how far those values are from the reference's, and the likely cause of a difference
tolerances.py    how far they may be
results.py       what was found, and the verdicts
reports/         the results as HTML, JSON and JUnit XML
"""
