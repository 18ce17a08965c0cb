"""What leaves a catalogue and comes back: bundles, BIDS, slices, streamed archives."""
