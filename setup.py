"""The optional C kernels; everything else about the package stands in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "boundnas.elastic._native",
            [
                "src/boundnas/elastic/_any.c",
                "src/boundnas/elastic/_avx2.c",
                "src/boundnas/elastic/_avx512.c",
                "src/boundnas/elastic/_native.c",
            ],
            depends=sorted(glob("src/boundnas/elastic/_*.[ch]")),
            extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,  # without a compiler PyTorch's own, slower kernels do the work
        )
    ]
)
