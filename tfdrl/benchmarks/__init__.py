"""How fast the parts are beside the bare libraries, and the whole beside its parts."""
