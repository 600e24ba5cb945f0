"""Small molecules: internal coordinates, the conformation autoencoder, conformer generators and their benchmark."""
