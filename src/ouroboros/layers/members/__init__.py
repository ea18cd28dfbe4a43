"""What types have in common whose members find one another in layers below: enrollment, connections, and their upkeep."""
