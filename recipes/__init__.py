"""The experiments, one TOML file each; ``latentset train FOLDER/NAME`` finds them here."""
