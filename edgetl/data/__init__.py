"""Folders of labelled photos, without torch.

``layout`` finds parts and classes, ``image_folder`` reads them for training. ``inspection`` decodes
every file, ``fingerprints`` and ``duplicates`` find copies; ``audit`` reports what is wrong, and
``split`` makes train/ and val/ with the help of ``group_split``.
"""
