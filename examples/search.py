# %% [markdown]
# # Searching your own videos
#
# The same as `avssl-search index` and `avssl-search query`, from Python. Needs `pip install 'avssl[search]'`.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

import avssl
from avssl.embedding.stream import StreamOptions
from avssl.media import open_media
from avssl.search.build import update
from avssl.search.find import choose_find, nearest
from avssl.search.page import write_page
from avssl.search.query import read_query
from avssl.search.store import read_index
from avssl.synthetic.world import WorldConfig, write_world

here = Path("example_search")
rows = write_world(WorldConfig(clips=18, classes=3, duration_s=2.0, seed=5), here / "videos")
model = avssl.load("tiny")
change = update(here / "index", [here / "videos"], model, "tiny")
print(change.rows, "moments of", change.files, "files")

# %% [markdown]
# ## By a moment of a video
#
# Each file counts once, with its best moment; the query itself is left out.

# %%
index = read_index(here / "index")
options = StreamOptions(index.facts["window_s"], index.facts["hop_s"])
asked = here / "videos" / rows[0]["path"]
query = read_query(model, asked, "video", options, at_s=0.0)
found = nearest(index, query, choose_find(index, model, query, "auto"), k=5)
for hit in found:
    print(f"{hit.score:.3f}  {hit.start_s:4.1f} s  {Path(hit.path).parent.name}")

# %% [markdown]
# ## By a picture, and by a sound that looks for pictures
#
# `tiny` was trained on pairs of picture and sound, so the two can be compared. Of a model whose towers never met
# (`starter`), make one with `avssl-align` first.

# %%
with open_media(asked) as media:
    Image.fromarray(media.frames_at([0.5]).data[0]).save(here / "picture.png")
still = read_query(model, here / "picture.png", "auto", options)
print(Path(nearest(index, still, "video", k=1)[0].path).parent.name)

heard = read_query(model, asked, "audio", options)
across = nearest(index, heard, choose_find(index, model, heard, "video"), k=5)
same = np.mean([Path(hit.path).parent.name == asked.parent.name for hit in across])
print(f"{same:.0%} of the pictures found by sound are of the sound's kind, chance 33 %")

# %% [markdown]
# ## As a page with pictures and players

# %%
write_page(here / "found.html", query, "video", found, index.facts)
