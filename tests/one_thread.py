"""One thread of BLAS and torch in pytest's processes and all that they start; imported before numpy.

With several processes on few cores, threads that wait for each other after each tiny product take longer than the
products: two of them doubled the processor time of the files that train.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
