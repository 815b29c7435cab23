"""Imported only by the process that the loader's workers are forked from: what they all need, loaded once."""

from avssl.data.worker import leave_signals_to_main

leave_signals_to_main()
