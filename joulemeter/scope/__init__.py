"""Oscilloscopes as meters: a trigger line on one channel, the voltage of a shunt or a current probe on another.

frontend   what stands between the device and the screen, as the user describes it; volts to amperes
setup      what the oscilloscope is asked to do, and what it says it does
driver     arm, wait by status, fetch: the same for all families, which differ by their Dialect
decode     frames of raw waveforms to samples
bench      a simulated device, shunt and probes in front of a simulated oscilloscope
"""
