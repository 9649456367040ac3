"""Values rather than costs: what a network computes, for those who decide by it. Nothing here knows a time."""
