"""A stand-in for panopticapi, which is on no package index; cityscapesscripts does the work."""
