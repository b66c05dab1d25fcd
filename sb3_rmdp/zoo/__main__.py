"""``python -m sb3_rmdp.zoo SCRIPT [OPTIONS]``: see :mod:`sb3_rmdp.zoo.scripts`."""

from sb3_rmdp.zoo.scripts import main

if __name__ == "__main__":
    main()
