"""The optional C kernels; everything else about the package stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "boundnas.elastic._native",
            [
                "src/boundnas/elastic/_batch_norm.c",
                "src/boundnas/elastic/_depthwise.c",
                "src/boundnas/elastic/_native.c",
                "src/boundnas/elastic/_pointwise.c",
                "src/boundnas/elastic/_squeeze_excite.c",
            ],
            depends=["src/boundnas/elastic/_native.h"],
            extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,  # without a compiler PyTorch's own, slower kernels do the work
        )
    ]
)
