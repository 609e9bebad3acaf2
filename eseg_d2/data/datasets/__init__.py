"""Registration of data sets; imported modules register nothing by themselves."""
