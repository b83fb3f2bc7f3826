"""The optional C kernel; everything else about the package stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "boundnas.elastic._depthwise",
            ["src/boundnas/elastic/_depthwise.c"],
            extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,  # without a compiler PyTorch's own, slower kernel does the work
        )
    ]
)
