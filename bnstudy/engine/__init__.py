"""Training: one loop over a stack of networks. Receives nets, data and probes; knows no storage."""
