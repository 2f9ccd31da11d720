"""Who gets which slot: policies that score servers, choosers that match them with who waits; reserves nothing."""
