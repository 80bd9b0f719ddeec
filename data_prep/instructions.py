"""What to do for the datasets that cannot be fetched automatically: one page each. Standard library only.

`{folder}` is data/{dataset}. Addresses: those of KaiyangZhou/CoOp DATASETS.md that still work, and what users of its
issue tracker and of torchvision's report in place of those that do not.
"""

from pathlib import Path

_PAGES: dict[str, str] = {
    "imagenet": """\
ImageNet needs an account and the acceptance of its terms (non-commercial research).
  1. Register at https://image-net.org and download the three files of ILSVRC 2012:
       ILSVRC2012_img_train.tar       138 GB  md5 1d675b47d978889d74fa0da5fadfb00e
       ILSVRC2012_img_val.tar         6.3 GB  md5 29b22e2961454d5413ddabcf34fc5622
       ILSVRC2012_devkit_t12.tar.gz   2.6 MB  md5 fa75699e90414af021442c21a62c3abf
  2. Place them in {folder}/images and let torchvision check and unpack them (twice the space for a while):
       python -c "import rmt.torchvision_import; from torchvision.datasets import ImageNet; \\
         [ImageNet('{folder}/images', part) for part in ('train', 'val')]"
     The tar files are not needed afterwards.
  3. What must be there:
       {folder}/images/train/n01440764/*.JPEG    1,000 folders, 1,281,167 images
       {folder}/images/val/n01440764/*.JPEG      1,000 folders, 50,000 images
     A tree that you have may be linked: ln -s /path/to/imagenet/images {folder}/images
The class names (classnames.txt) are fetched. CoOp's few-shot sample of ImageNet depends on the order in which its file
system listed the files and cannot be reproduced; here names are sorted.""",
    "stanford_cars": """\
StanfordCars has lost its official addresses (pytorch/vision issue 7545); the terms are non-commercial research.
  1. Take the images from one of
       https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset   (folders nested twice: take the inner ones)
       https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars
       the original archives, if you have them: place them as they are, they are checked and unpacked
         {folder}/cars_train.tgz   979,269,282 bytes
           sha256 512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288
         {folder}/cars_test.tgz    977,350,468 bytes
           sha256 bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243
  2. What must be there:
       {folder}/cars_train/00001.jpg to 08144.jpg   8,144 images
       {folder}/cars_test/00001.jpg to 08041.jpg    8,041 images
     Re-packs with folders by class, or with names of six digits, do not fit.
The labels are those of CoOp's split file, which is fetched; no .mat file is needed.""",
    "sun397": """\
SUN397 has lost its official addresses (pytorch/vision issue 9348); the terms are research.
  1. Take the original tree from one of
       https://opendatalab.com/OpenDataLab/SUN397/tree/main/raw
       https://www.kaggle.com/datasets/hiuphmnhtrung/sun397   (folders nested twice: take the inner one)
       the original archive, if you have it: place it as it is, it is checked and unpacked
         {folder}/SUN397.tar.gz   39,077,296,924 bytes  md5 8ca2778205c41d23104230ba66911c7a
  2. What must be there:
       {folder}/SUN397/a/abbey/sun_*.jpg
       {folder}/SUN397/a/apartment_building/outdoor/sun_*.jpg   and so on, 397 scenes, 39,700 images that are used
     Re-packs with train and test folders, or without the original file names, do not fit.
CoOp's split file is fetched; Partitions.zip is not needed.""",
    "ucf101": """\
UCF101 is used as CoOp's middle frames of the videos: one file on Google Drive, without a mirror or a checksum.
  1. Download it, in a browser from https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view or by
       gdown 10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O -O {folder}/UCF-101-midframes.zip
     It is unpacked when you run this again; or unpack it yourself.
  2. What must be there:
       {folder}/UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg   and so on, 101 folders, 13,320 images
     Folder and file may differ in case (Handstand_Pushups/v_HandStandPushups_g01_c01.jpg). Frames that you cut from the
     videos yourself are not CoOp's to the byte.
CoOp's split file is fetched.""",
}


def page(name: str, folder: Path) -> str:
    """The instructions of a dataset that is placed by hand in `folder`."""
    again = (
        f"Then run this again (python -m data_prep download {name} --data {folder.parent}): every path of the split is "
        "checked. Or name a tree in CoOp's layout as coop_data in the config."
    )
    return f"{name} cannot be fetched automatically.\n{_PAGES[name].replace('{folder}', str(folder))}\n{again}"
