"""Package metadata of sb3_rmdp."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithHyperparams(build_py):
    """Ships the top-level folder ``hyperparams`` within the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # they are found where they are
            return
        folder = Path(self.build_lib, "sb3_rmdp", "hyperparams")
        self.mkpath(str(folder))
        for source in (ROOT / "hyperparams").glob("*.yml"):
            self.copy_file(str(source), str(folder / source.name))


EXTRAS = {
    # RL Zoo's scripts. It needs requests without saying so; its plots, videos and logs are part of them
    "zoo": ["rl_zoo3[plots]>=2.9,<3", "requests", "matplotlib", "tensorboard>=2.9.1", "moviepy", "pillow"],
    # Pictures, TensorBoard logs, videos
    "plots": ["matplotlib", "tensorboard>=2.9.1", "pillow"],
    # MuJoCo stepped by EnvPool, for machines with many cores; there are no wheels for Python 3.10
    "envpool": ["envpool>=1.2,<1.3; python_version >= '3.11'"],
    # sb3-rmdp sweep: many trainings, on this machine or a cluster
    "sweep": ["ray>=2.40"],
    # Representatives as ONNX, and signatures: sb3-rmdp export
    "export": ["onnx>=1.23", "onnxruntime>=1.32", "onnxscript>=0.7", "cryptography>=42"],
    # Multi-objective environments
    "mo": ["mo-gymnasium>=1.3"],
    "docs": ["sphinx", "myst-parser", "furo"],
    "dev": [
        "pytest",
        "pytest-xdist",
        "hypothesis",
        "mypy<3",
        "types-PyYAML",
        "types-tqdm",
        "ruff",
        "black",
        "psutil",
        "playwright",
    ],
}

setup(
    name="sb3_rmdp",
    version=(ROOT / "sb3_rmdp" / "version.txt").read_text(encoding="utf-8").strip(),
    description="Represented MDPs for Stable-Baselines3: many users served by few policies",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords="reinforcement-learning personalization stable-baselines3 gymnasium represented-mdp",
    packages=find_packages(include=["sb3_rmdp", "sb3_rmdp.*"]),
    package_data={"sb3_rmdp": ["py.typed", "version.txt"]},
    python_requires=">=3.10",
    install_requires=[
        "stable-baselines3>=2.9,<3",
        "sb3-contrib>=2.9,<3",
        "gymnasium[mujoco]>=1.1,<2",
        # constraints-lowest.txt has the lowest of these, and "make lowest" tries them
        "numpy>=1.24",
        "torch>=2.8,<3",
        "scipy>=1.12",
        "scikit-learn>=1.2",
        # learn(progress_bar=True), tables
        "tqdm>=4.62",
        "rich>=13",
        "click>=8.1",
        # Tuned hyperparameters, files of sweeps
        "pyyaml>=6",
    ],
    entry_points={"console_scripts": ["sb3-rmdp=sb3_rmdp.cli:main"]},
    cmdclass={"build_py": BuildWithHyperparams},
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
