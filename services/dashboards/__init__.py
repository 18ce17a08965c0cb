"""Published Voilà dashboards behind hub sign-in."""
