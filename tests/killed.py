"""A process that is killed while it writes."""

import subprocess
import sys


def killed_while_writing(target) -> None:
    subprocess.run([sys.executable, "-c", f"""if True:
        import os, signal
        from nnunetv2_rmr.files.atomic import replacing
        with replacing({str(target)!r}) as temporary:
            open(temporary, "w").write("half")
            os.kill(os.getpid(), signal.SIGKILL)"""])
