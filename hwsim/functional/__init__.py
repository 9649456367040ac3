"""Values rather than costs: what a network computes on a device's cells. Returns activity and features, never a time."""
