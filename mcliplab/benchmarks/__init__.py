"""How fast data load, a set is reinforced and a step goes, against peers and the hardware's limits."""
