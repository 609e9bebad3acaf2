"""Stands in for panopticapi, which is on no package index: cityscapesscripts has its numbers."""
