"""Labelled photos, without torch.

``photo_source`` finds them in a folder, whose parts and classes ``layout`` knows, or in a list;
``image_folder`` reads them for training. ``inspection`` decodes every file, ``fingerprints`` and
``duplicates`` find copies; ``audit`` reports what is wrong. ``group_split`` chooses what to
validate on, and ``split`` makes folders of it. ``label_review`` corrects labels in a folder or a
list, as ``label_store`` can, and writes it to ``review_log`` first.
"""
