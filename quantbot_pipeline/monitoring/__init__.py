"""What checks and notices judge: quality, regression, health; and how a notice is composed and sent."""
