from site_pages import make_site

app = make_site("module level")
