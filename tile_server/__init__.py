"""Pixels over HTTP: readers, pyramids, codecs and the Tornado application.

Import from the modules: `readers.open_slide`, `view.describe`, `tokens.seal`,
`address.tiles_url`. Nothing is imported here, so that the parts that know no HTTP
can be used without it.
"""
