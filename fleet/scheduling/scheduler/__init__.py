"""The books of the dispatcher, kept true around what a chooser proposes; knows no clock and no actor."""
