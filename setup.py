"""The project's dependencies. It runs from its checkout, like CoOp: installing adds no module.

pip install .            the dependencies
pip install .[dev]       also those of the tests
pip install .[app]       also FastAPI and uvicorn, for app.py
pip install .[cluster]   also Ray, for `scripts/compare.sh ... --executor ray`
pip install .[dicom]     also pydicom and its decoders, for DICOM images
pip install .[hub]       also huggingface_hub, for `MODEL.BACKBONE.NAME hf-hub:OWNER/NAME`
"""

from setuptools import setup

APP = ["fastapi>=0.115", "uvicorn>=0.30"]
DICOM = [
    "pydicom>=3.0",
    "pylibjpeg>=2.0",
    "pylibjpeg-libjpeg>=2.1",  # JPEG, JPEG Lossless, JPEG-LS; GPL 3
    "pylibjpeg-openjpeg>=2.2",  # JPEG 2000
]

setup(
    name="vip-for-dassl",
    version="0.1.0",
    description="Visual symptom-guided prompt learning for medical images, on Dassl.pytorch",
    license="MIT",
    python_requires=">=3.10",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)],
    # None, on purpose: a module named `datasets` in an environment would shadow other people's.
    packages=[],
    py_modules=[],
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "clip-anytorch>=2.6",  # openai/CLIP as PyPI has it
        "safetensors>=0.4",
        "tokenizers>=0.20",
        "packaging>=20",  # clip reads versions with it; see dassl_compat/absent
        "numpy>=1.26",
        "pillow>=10",
        "pyyaml>=6",
        "yacs>=0.1.8",
        "filelock>=3.12",
        "pydantic>=2.7",
        "tqdm>=4.66",
        "tensorboard>=2.15",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "statsmodels>=0.14",
        "tabulate>=0.9",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "imagehash>=4.3",
        "openai>=1.60",
    ],
    extras_require={
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "import-linter>=2.1",
            "mypy>=1.11",
            "types-PyYAML>=6",
            "types-tabulate>=0.9",
            "nbformat>=5",
            "nbclient>=0.10",
            "ipykernel>=6",
            # They define the formats that the tests compare with.
            "open_clip_torch>=3.0",
            "timm>=1.0",
            "transformers>=4.45",
            # DICOM, and real files of it.
            *DICOM,
            "pydicom-data>=1.0",
            # The page, and a browser that drives it.
            *APP,
            "playwright>=1.45",
        ],
        "app": APP,
        "dicom": DICOM,
        "cluster": ["ray>=2.30"],
        "hub": ["huggingface_hub>=0.24"],
    },
)
