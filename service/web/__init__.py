"""What all HTTP routes share: problem details, parameters, bodies, probes, the API pages."""
