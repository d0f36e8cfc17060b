"""The item finder: a small network that predicts which pixels of a photo belong to the item, whatever its kind.

    network.py        the network
    shapes.py         random shapes, drawn
    cutouts.py        items with exact masks: shapes, items of the synthetic shop, cut-outs of files and photos
    scenes.py         training images composed of cut-outs and backgrounds, batch by batch
    fit.py            training loop
    self_training.py  masks of unlabelled photos, predicted by a trained finder
    make.py           the whole run: from sources to a finder directory
    store.py          load and save finder directories
    regions.py        several items in one photo, by repeated prediction

`training.data.item_finder` runs a trained finder without torch.
"""
