"""Texts that show what a classifier of news says, where nobody gives others."""

EXAMPLES = (
    "Parliament dissolved as coalition talks collapse in the capital",
    "Striker's late goal sends the visitors through to the cup final",
    "Airline shares fall after fuel costs push it to a quarterly loss",
    "Probe sends back first pictures of the icy moon's surface",
    "Search engine starts a free e-mail service with a gigabyte of space",
    "Central bank holds interest rates as inflation slows",
)
