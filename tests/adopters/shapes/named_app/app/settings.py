GREETING = "from a package called app"
