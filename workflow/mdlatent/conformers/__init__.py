"""Small molecules: conformations as internal coordinates, the conformation autoencoder, generators and their benchmark."""
