"""Alert rules, their conditions and their life: pending, firing, silenced. Sends nothing."""
