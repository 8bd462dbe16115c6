"""Public data sets, one a file, read in the layout in which they are released."""

from __future__ import annotations

from sfda_edge.data.datasets.acdc import ACDC
from sfda_edge.data.datasets.bdd100k import BDD100K
from sfda_edge.data.datasets.camvid import CAMVID, CAMVID32
from sfda_edge.data.datasets.cityscapes import CITYSCAPES
from sfda_edge.data.datasets.cross_city import CROSS_CITY
from sfda_edge.data.datasets.dataset import Dataset
from sfda_edge.data.datasets.dense_pass import DENSEPASS
from sfda_edge.data.datasets.endovis import ENDOVIS17, ENDOVIS18
from sfda_edge.data.datasets.gta5 import GTA5
from sfda_edge.data.datasets.idd import IDD
from sfda_edge.data.datasets.kitti import KITTI
from sfda_edge.data.datasets.mapillary import MAPILLARY
from sfda_edge.data.datasets.stanford2d3d import STANFORD2D3D
from sfda_edge.data.datasets.syn_pass import SYNPASS
from sfda_edge.data.datasets.synthia import SYNTHIA

__all__ = ["DATASETS", "Dataset"]

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        *(GTA5, SYNTHIA, CITYSCAPES, CROSS_CITY, KITTI, ACDC, BDD100K, MAPILLARY, IDD),
        *(CAMVID, CAMVID32, DENSEPASS, SYNPASS, STANFORD2D3D, ENDOVIS17, ENDOVIS18),
    )
}
