"""The physics wing: from a recording to numbers, a pure function of its samples. It knows no instrument.

time       clock, synccode (codesearch, codefit)
windows    edges, lines, gate, stamps, shape (changepoints, readings, evidence), align
energy     kinds, counters, integrate, envelope, idle
trust      series, stats, measurand, placement, uncertainty, combine, reference, calibration
answers    subject, lag, agreement, witness, loss, total, doubts, summary, analyze
live       livefigures, livelines, livestrip, livepulses
decisions  ranks, regression, rules
"""
