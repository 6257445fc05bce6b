"""What has the model learnt? One file per family of questions."""
