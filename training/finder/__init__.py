"""The item finder: a small network that says which pixels of a photo are the item's, whatever kind of thing it is.

    shapes.py    random shapes, drawn
    cutouts.py   items with exact masks: shapes, the studio's products and solids, cut-outs of files and photos
    scenes.py    training pictures made of cut-outs and backgrounds, batch by batch
    fit.py       training
    regions.py   several items in one photo, by looking again
    store.py     finder directories: load, save

The network itself is `training.finder.network`; `training.data.item_finder` runs it without torch.
"""
