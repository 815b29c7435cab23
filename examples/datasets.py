# %% [markdown]
# # Embeddings and shards as PyTorch data sets
#
# `avssl-embed` writes a table, `avssl-shards` writes tars; both fit behind a `torch.utils.data.Dataset` of a few lines.

# %%
import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

import avssl
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.media import open_media
from avssl.shards import ShardSet
from avssl.synthetic.world import WorldConfig, write_world

here = Path("example_datasets")
write_world(WorldConfig(clips=24, classes=3, duration_s=2.0), here / "videos")  # videos/CLASS/NUMBER.mp4
packing = ["avssl-shards", "build", here / "videos", here / "shards", "--clip-s", "2", "--short-side-px", "72"]
subprocess.run(packing, check=True)

# %% [markdown]
# ## A table of embeddings
#
# The same as `avssl-embed example_datasets/shards -o example_datasets/table.parquet --model tiny`.

# %%
model = avssl.load("tiny")
table_file = here / "table.parquet"
embed_to_file(model, find_units([here / "shards"]), table_file, options_for(model, window_s=2.0), model_name="tiny")
print("made with", json.loads(pq.read_schema(table_file).metadata[b"meta"])["model"])


class EmbeddingTable(Dataset):
    """Rows of a table of avssl-embed: a vector of `column` and the number of the row's label."""

    def __init__(self, path: Path, column: str):
        table = pq.read_table(path, columns=[column, f"has_{column}", "label"])
        table = table.filter(table[f"has_{column}"])
        vectors = table[column].combine_chunks()
        self.vectors = torch.tensor(vectors.flatten().to_numpy()).view(len(vectors), -1)
        self.labels = sorted(set(table["label"].to_pylist()))
        self.targets = torch.tensor([self.labels.index(label) for label in table["label"].to_pylist()])

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.vectors[row], self.targets[row]


rows = EmbeddingTable(table_file, "audio")
train, test = torch.utils.data.random_split(rows, [0.75, 0.25], generator=torch.Generator().manual_seed(0))

# %% [markdown]
# A linear probe in plain PyTorch. (`avssl-eval` has this with folds, groups and results files.)

# %%
torch.manual_seed(0)
probe = torch.nn.Linear(rows.vectors.shape[1], len(rows.labels))
optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
for _ in range(60):
    for vectors, targets in DataLoader(train, batch_size=8, shuffle=True):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(probe(vectors), targets).backward()
        optimizer.step()
vectors, targets = next(iter(DataLoader(test, batch_size=len(test))))
accuracy = (probe(vectors).argmax(1) == targets).float().mean().item()
print(f"{accuracy:.0%} of {len(test)} unseen rendered clips, chance {1 / len(rows.labels):.0%}")

# %% [markdown]
# ## Shards
#
# A `ShardSet` gives the bytes of any row, and pickles, so that the workers of a `DataLoader` can have it. For training
# use `avssl.data.loader`, which also shuffles across ranks, resumes exactly and counts what it skips.


# %%
class ShardClips(Dataset):
    """Eight pictures and one second of sound of every packed clip."""

    def __init__(self, folder: Path):
        self.shards = ShardSet.open(folder)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        with open_media(self.shards.read(row, self.shards.member_name(row, "video"))) as media:
            pictures = media.frames_at([n / 8 for n in range(8)], size_px=(64, 64)).data
        with open_media(self.shards.read(row, self.shards.member_name(row, "audio"))) as media:
            sound = media.audio_between(0.0, 1.0, rate_hz=24_000).samples
        label = int(self.shards.label[row])
        return {"video": torch.tensor(pictures), "audio": torch.tensor(sound), "label": torch.tensor(label)}


batch = next(iter(DataLoader(ShardClips(here / "shards"), batch_size=4, shuffle=True)))
print({name: (tuple(value.shape), str(value.dtype)) for name, value in batch.items()})
embeddings = model.encode_video(batch["video"])  # [4, dim]; preprocessing is the model's own business
