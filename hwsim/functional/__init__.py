"""Values rather than costs: what a network computes, some of it on a device's cells. Nothing here knows a time."""
