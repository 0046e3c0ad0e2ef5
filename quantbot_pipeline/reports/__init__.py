"""What people read: leaderboards and tables computed from the catalog."""
